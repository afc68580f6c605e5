<?php

// A buffer that one function begins and another lets grow belongs to who made it as large as it is.
function begin(string &$buffer): void
{
    $buffer = str_repeat('b', 3 << 20);
}

function append(string &$buffer): void
{
    $piece = str_repeat('a', 10000);
    for ($i = 0; $i < 300; $i++) {
        $buffer .= $piece;
    }
}

function keep(): string
{
    return str_repeat('k', 16 << 20);
}

$buffer = '';
begin($buffer);
append($buffer);
$kept = keep();
