<?php

// Makes a known number of strings of 1000 bytes, one allocation each.
function make(int $count, int $length): void
{
    for ($i = 0; $i < $count; $i++) {
        $string = str_repeat('x', $length);
        unset($string);
    }
}

make((int) $_GET['count'], 1000);
echo json_encode(['pid' => getmypid(), 'peak' => memory_get_peak_usage(true)]);
