<?php

// Each level of a recursion keeps the same, and what it calls keeps half of that. (Lengths that are constant where they are
// used would let opcache make the strings while it compiles.)
function visit(int $level, int $length): array
{
    $kept = [str_repeat('v', $length), note(intdiv($length, 2))];

    return $level === 0 ? $kept : [$kept, visit($level - 1, $length)];
}

function note(int $length): string
{
    return str_repeat('n', $length);
}

$tree = visit(50, 100000);
