<?php

// Appended to another script (auto_append_file): makes the file `hold` of the query with ".ready" behind its name, and waits, up to
// 60 s, until `hold` exists (a path as PHP sees it).

if (isset($_GET['hold'])) {
    (static function (string $file): void {
        $deadline = time() + 60;
        touch("$file.ready");
        while (!file_exists($file) && time() < $deadline) {
            usleep(20000);
        }
    })($_GET['hold']);
}
