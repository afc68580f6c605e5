<?php

// What is given back before the peak is held by nobody there, however much was taken.
function import(): int
{
    $bytes = 0;
    for ($i = 0; $i < 50; $i++) {
        $line = str_repeat('i', 1 << 20);
        $bytes += strlen($line);
    }

    return $bytes;
}

function result(): string
{
    return str_repeat('r', 4 << 20);
}

function index(): string
{
    return str_repeat('x', 4 << 20);
}

$bytes = import();
$result = result();
$index = index();
