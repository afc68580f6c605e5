<?php

// Calls itself `depth` deep, keeps 200 page runs there, and answers the depth.
function descend(int $depth): array
{
    if ($depth > 0) {
        return descend($depth - 1);
    }
    $kept = [];
    for ($i = 0; $i < 200; $i++) {
        $kept[] = str_repeat('x', 4000 + $i);
    }

    return $kept;
}

$kept = descend((int) $_GET['depth']);
echo $_GET['depth'];
