<?php

// The cases that every PHP has. Each function without an underscore at its start is one.

namespace App\Stacks\Cases;

use App\Stacks\Base;
use App\Stacks\Child;
use App\Stacks\Destroyed;
use App\Stacks\GrowingOne;
use App\Stacks\GrowingOther;
use App\Stacks\Magic;
use App\Stacks\Stream;

use function App\Stacks\grow;
use function App\Stacks\Helpers\at_depth;
use function App\Stacks\Helpers\delegate;
use function App\Stacks\Helpers\outer_generator;
use function App\Stacks\Helpers\throws_among_arguments;
use function App\Stacks\Helpers\throws_with_object;

require __DIR__ . '/helpers.php';

function plain()
{
    return grow();
}

function many_lines()
{
    return \strlen(
        \strtoupper(
            grow()
        )
    );
}

function method()
{
    return (new Child())->method();
}

function static_method()
{
    Child::staticInherited();
    Base::staticInherited();
}

function closure()
{
    return (new Child())->closure();
}

function static_closure()
{
    return (new Child())->staticClosure();
}

function nested_closures()
{
    return (new Child())->nestedClosures();
}

/** One closure's code under several classes, with an object and without. */
function bound_closures()
{
    $grow = function () {
        return grow();
    };
    \Closure::bind($grow, new Child(), Child::class)();
    \Closure::bind($grow, new Magic(), Magic::class)();
    \Closure::bind($grow, null, Child::class)();
    $grow->bindTo(null)();
    $grow->call(new Base());
}

/** One method's code in two classes, and under two names. */
function trait_methods()
{
    foreach ([new GrowingOne(), new GrowingOther()] as $object) {
        $object->growing();
    }
    // PHP 7.4 keeps the alias with the class; the function has the trait's name.
    if (\PHP_VERSION_ID >= 80000) {
        (new GrowingOther())->alias();
    }
}

function array_map_callback()
{
    return \array_map(function ($each) {
        return grow();
    }, [1]);
}

function usort_callback()
{
    $list = [2, 1];
    \usort($list, function ($one, $other) {
        grow();

        return $one <=> $other;
    });
}

function callback_by_name()
{
    return \call_user_func('App\Stacks\grow');
}

function callback_to_method()
{
    \call_user_func_array([new Child(), 'inherited'], []);
    \array_map([Child::class, 'staticInherited'], [1]);
}

function callback_in_callback()
{
    return \array_map(function ($list) {
        return \array_filter($list, function ($each) {
            return grow();
        });
    }, [[1]]);
}

function reflection()
{
    return (new \ReflectionMethod(Base::class, 'inherited'))->invoke(new Child());
}

function generator()
{
    foreach (delegate(0) as $value) {
        \strlen($value);
    }
}

function yield_from()
{
    foreach (outer_generator() as $value) {
        \strlen($value);
    }
}

/** The stack has to lead through all of them. */
function yield_from_forty()
{
    foreach (delegate(40) as $value) {
        \strlen($value);
    }
}

function generator_in_array()
{
    return \iterator_to_array(outer_generator(), false);
}

function included_file()
{
    return include __DIR__ . '/included.php';
}

function required_once()
{
    require_once __DIR__ . '/included.php';

    return \App\Stacks\Included\growing();
}

function evaluated()
{
    return eval("\n\nreturn \\App\\Stacks\\grow();");
}

/** Functions of other names, in requests one after the other, have their code at equal addresses. */
function evaluated_function()
{
    $name = $_GET['name'];
    eval("function $name() {\n    return \\App\\Stacks\\grow();\n}");

    return $name();
}

function destructor()
{
    $object = new Destroyed();
    $object = null;
}

function destructor_at_return()
{
    $object = new Destroyed();
}

function destructor_at_end()
{
    $GLOBALS['object'] = new Destroyed();
}

function destructor_in_collection()
{
    $object = new Destroyed();
    $object->self = $object;
    $object = null;
    \gc_collect_cycles();
}

function unwinding()
{
    try {
        throws_with_object();
    } catch (\RuntimeException $exception) {
        \strlen($exception->getMessage());
    }
}

/** The same function unwinds from two lines. */
function unwinding_arguments()
{
    foreach ([0, 1] as $turn) {
        try {
            throws_among_arguments($turn);
        } catch (\RuntimeException $exception) {
            \strlen($exception->getMessage());
        }
    }
}

function in_catch_and_finally()
{
    try {
        try {
            throw new \RuntimeException('x');
        } catch (\RuntimeException $exception) {
            grow();
        }
    } finally {
        grow();
    }
}

function exception_handler()
{
    \set_exception_handler(function ($exception) {
        grow();
    });
    throw new \RuntimeException('x');
}

function error_handler()
{
    \set_error_handler(function ($number, $message) {
        return grow() !== '';
    });

    return [][$_GET['case']] ?? \trigger_error('x');
}

function call()
{
    return (new Magic())->anything();
}

function call_static()
{
    return Magic::anything();
}

function properties()
{
    $object = new Magic();
    isset($object->one);
    $object->two = $object->three;
    unset($object->four);
}

function array_access()
{
    $object = new Magic();
    isset($object['one']);
    $object['two'] = $object['three'];
    unset($object['four']);
}

function to_string()
{
    return 'a' . new Magic();
}

function invoked()
{
    $object = new Magic();

    $object();
    $object->__invoke();
    \array_map($object, [1]);
}

function cloned()
{
    return clone new Magic();
}

function serialized()
{
    return [\serialize(new Magic()), \json_encode(new Magic())];
}

function counted()
{
    return \count(new Magic());
}

function iterated()
{
    foreach (new Magic() as $value) {
        \strlen($value);
    }
}

/** Functions that are called without a frame where PHP has such calls (8.4 on). */
function frameless_implode()
{
    return \implode(',', [new Magic()]);
}

function frameless_str_replace()
{
    return \str_replace('a', 'b', new Magic());
}

function frameless_in_array()
{
    return \in_array(new Magic(), ['x']);
}

function frameless_in_namespace()
{
    return trim(new Magic());
}

function frameless_three()
{
    \strpos(new Magic(), 'x');
    \preg_replace('/a/', 'b', new Magic());
}

function shutdown()
{
    \register_shutdown_function(function () {
        grow();
    });
}

function shutdown_after_exit()
{
    \register_shutdown_function([new Child(), 'method']);
    exit;
}

function output_callback()
{
    \ob_start(function ($text) {
        return $text . grow();
    });
    echo 'x';
    \ob_end_clean();
}

function output_callback_at_end()
{
    \ob_start(function ($text) {
        return $text . grow();
    });
    echo 'x';
}

function autoload()
{
    \spl_autoload_register(function ($class) {
        grow();
        require __DIR__ . '/loaded.php';
    });

    return new \App\Stacks\Loaded();
}

function autoload_by_function()
{
    \spl_autoload_register(function ($class) {
        grow();
    });

    return \class_exists('App\Stacks\Missing');
}

function stream_wrapper()
{
    \stream_wrapper_register('grow', Stream::class);

    return include 'grow://x';
}

function anonymous_class()
{
    $object = new class() {
        public function method()
        {
            return (function () {
                return grow();
            })();
        }
    };

    return $object->method();
}

function long_names()
{
    require_once __DIR__ . '/long.php';

    return (new \App\Stacks\ANamespaceWhoseNameIsLong\WithAnotherOneBelowItThatIsLongToo\AClassWithTheLongestNameOfThemAll())->call();
}

function recursion()
{
    return at_depth(20000);
}

/** 128 frames from str_repeat to {main}. */
function recursion_to_the_brim()
{
    return at_depth(123);
}

function recursion_beyond_the_brim()
{
    return at_depth(124);
}

/** A loop for a compiler that traces. */
function after_a_loop()
{
    $sum = 0;
    for ($turn = 0; $turn < 300; $turn++) {
        $sum += \strlen(\str_repeat('x', $turn % 7));
        if ($turn === 298) {
            grow();
        }
    }

    return $sum;
}
