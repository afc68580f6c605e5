<?php

namespace App\Stacks\Cases;

use App\Stacks\Child;

use function App\Stacks\grow;
use function App\Stacks\Helpers\outer_generator;

function fiber()
{
    $fiber = new \Fiber(function () {
        (new Child())->inherited();
        \Fiber::suspend();
        grow();
    });
    $fiber->start();
    $fiber->resume();
}

function fiber_in_fiber()
{
    $fiber = new \Fiber(function () {
        $fiber = new \Fiber('App\Stacks\grow');
        $fiber->start();
    });
    $fiber->start();
}

function generator_in_fiber()
{
    $fiber = new \Fiber(function () {
        foreach (outer_generator() as $value) {
            \Fiber::suspend($value);
        }
    });
    $fiber->start();
    while (!$fiber->isTerminated()) {
        $fiber->resume();
    }
}

function callable_syntax()
{
    $grow = (new Child())->method(...);
    $grow();
    \array_map(grow(...), []);
    (grow(...))();
}

function constructor_in_default(Initialised $object = new Initialised())
{
    return $object;
}

class Initialised
{
    public function __construct()
    {
        grow();
    }
}

enum Suit
{
    case Hearts;

    public function grow(): string
    {
        return grow();
    }
}

function enum_method()
{
    return Suit::Hearts->grow();
}
