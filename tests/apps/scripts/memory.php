<?php

// Answers with what PHP itself says of its memory. Query:
//   mb=N     holds N MiB more, in a static, until the request ends
//   file=F   waits, up to 60 s, until the file F exists (a path as PHP sees it), so that a test can read the worker meanwhile

final class Held
{
    public static string $block = '';
}

Held::$block = str_repeat('x', 1048576 * (int) ($_GET['mb'] ?? 0));

$answer = [
    'version' => PHP_VERSION,
    'usage' => memory_get_usage(),
    'real_usage' => memory_get_usage(true),
    'peak' => memory_get_peak_usage(),
    'real_peak' => memory_get_peak_usage(true),
];

if (isset($_GET['file'])) {
    $deadline = time() + 60;
    do {
        clearstatcache();
        usleep(1000);
    } while (!file_exists($_GET['file']) && time() < $deadline);
}

echo json_encode($answer);
