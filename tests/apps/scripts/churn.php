<?php

// Takes and frees a page run again and again for so many seconds: two growth events a turn, and little else. Answers how often.
$until = microtime(true) + (float) ($_GET['seconds'] ?? 1);
$turns = 0;
while (microtime(true) < $until) {
    for ($i = 0; $i < 1000; $i++) {
        $string = str_repeat('x', 4000 + $i);
        unset($string);
    }
    $turns += 1000;
}
echo json_encode(['turns' => $turns]);
