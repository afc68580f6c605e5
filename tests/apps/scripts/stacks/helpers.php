<?php

namespace App\Stacks\Helpers;

use App\Stacks\Destroyed;

use function App\Stacks\grow;

function inner_generator()
{
    yield 'first';
    grow();
    yield 'second';
}

function middle_generator()
{
    yield from inner_generator();
}

function outer_generator()
{
    yield 'before';
    yield from middle_generator();
}

function delegate($depth)
{
    if ($depth > 0) {
        yield from delegate($depth - 1);
    } else {
        yield grow();
    }
}

function throws()
{
    throw new \RuntimeException('x');
}

function throws_with_object()
{
    $object = new Destroyed();
    throw new \RuntimeException('x');
}

/** The object among the arguments goes while this function stands at the exception. */
function throws_among_arguments($turn)
{
    if ($turn === 0) {
        takes_two(new Destroyed(), throws());
    }
    takes_two(new Destroyed(), throws());
}

function takes_two($one, $other)
{
    return [$one, $other];
}

function at_depth($calls)
{
    return $calls > 0 ? at_depth($calls - 1) : grow();
}
