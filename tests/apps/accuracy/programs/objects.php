<?php

// 60,000 objects of 56 bytes each (73 a page) and the engine's own table of objects (65,536 pointers) belong to who makes them;
// the array of 60,000 values of 16 bytes to who makes that.
final class Point
{
    public int $x = 0;
}

function make_point(): Point
{
    return new Point();
}

function collect(int $count): SplFixedArray
{
    $points = new SplFixedArray($count);
    for ($i = 0; $i < $count; $i++) {
        $points[$i] = make_point();
    }

    return $points;
}

$points = collect(60000);
