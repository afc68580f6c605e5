<?php

namespace App\Stacks\Cases;

use function App\Stacks\grow;

class Hooked
{
    public string $name {
        get => grow();
        set (string $value) {
            $this->name = $value . grow();
        }
    }
}

function property_hooks()
{
    $object = new Hooked();
    $object->name = $object->name;
}

function lazy_object()
{
    $lazy = (new \ReflectionClass(Hooked::class))->newLazyGhost(function (Hooked $object) {
        grow();
    });

    return \get_object_vars($lazy);
}

function array_find_callback()
{
    return \array_find([1], fn ($each) => grow());
}
