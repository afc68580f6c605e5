<?php

// Takes and gives back small blocks, `count` times, and answers that number: the heap does not grow.
function make(int $length): string
{
    return str_repeat('x', $length);
}

for ($i = 0; $i < $_GET['count']; $i++) {
    $string = make(100 + $i % 4);
}
echo $_GET['count'];
