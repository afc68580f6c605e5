<?php

// Answers with what PHP itself says of its memory. Query:
//   mb=N     holds N MiB more, in a static, until the request ends
//   file=F   waits, up to 60 s, until the file F exists (a path as PHP sees it); while it sleeps, its memory is exactly
//            what it answers, so that a test can read the worker from outside and compare

final class Held
{
    public static string $block = '';
}

Held::$block = str_repeat('x', 1048576 * (int) ($_GET['mb'] ?? 0));
$file = $_GET['file'] ?? __FILE__;
// The first look keeps the name in PHP's stat cache: it has to be there before the figures are taken.
file_exists($file);
$deadline = time() + 60;

$usage = memory_get_usage();
$realUsage = memory_get_usage(true);
$peak = memory_get_peak_usage();
$realPeak = memory_get_peak_usage(true);

while (!file_exists($file) && time() < $deadline) {
    usleep(1000);
}

$isUnchanged = memory_get_usage() === $usage && memory_get_peak_usage() === $peak;

echo json_encode([
    'usage' => $usage,
    'real_usage' => $realUsage,
    'peak' => $peak,
    'real_peak' => $realPeak,
    'unchanged' => $isUnchanged,
]);
