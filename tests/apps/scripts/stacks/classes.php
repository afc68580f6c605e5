<?php

namespace App\Stacks;

class Base
{
    public function inherited()
    {
        return grow();
    }

    public static function staticInherited()
    {
        return grow();
    }
}

class Child extends Base
{
    public $property;

    public function method()
    {
        return $this->inherited();
    }

    public function closure()
    {
        $grow = function () {
            return $this->inherited();
        };

        return $grow();
    }

    public function staticClosure()
    {
        $grow = static function () {
            return grow();
        };

        return $grow();
    }

    public function nestedClosures()
    {
        return (function () {
            return \array_map(static function () {
                return (function () {
                    return grow();
                })();
            }, [1]);
        })();
    }
}

class Magic implements \ArrayAccess, \IteratorAggregate, \Countable, \JsonSerializable
{
    public function __call($name, $arguments)
    {
        return grow();
    }

    public static function __callStatic($name, $arguments)
    {
        return grow();
    }

    public function __get($name)
    {
        return grow();
    }

    public function __set($name, $value)
    {
        grow();
    }

    public function __isset($name)
    {
        return grow() === '';
    }

    public function __unset($name)
    {
        grow();
    }

    public function __toString()
    {
        return grow();
    }

    public function __invoke()
    {
        return grow();
    }

    public function __clone()
    {
        grow();
    }

    public function __sleep()
    {
        grow();

        return [];
    }

    #[\ReturnTypeWillChange]
    public function offsetExists($key)
    {
        return grow() === '';
    }

    #[\ReturnTypeWillChange]
    public function offsetGet($key)
    {
        return grow();
    }

    #[\ReturnTypeWillChange]
    public function offsetSet($key, $value)
    {
        grow();
    }

    #[\ReturnTypeWillChange]
    public function offsetUnset($key)
    {
        grow();
    }

    #[\ReturnTypeWillChange]
    public function getIterator()
    {
        grow();

        return new \ArrayIterator([]);
    }

    #[\ReturnTypeWillChange]
    public function count()
    {
        return \strlen(grow());
    }

    #[\ReturnTypeWillChange]
    public function jsonSerialize()
    {
        return grow();
    }
}

class Destroyed
{
    public function __destruct()
    {
        grow();
    }
}

trait Growing
{
    public function growing()
    {
        return grow();
    }
}

class GrowingOne
{
    use Growing;
}

class GrowingOther
{
    use Growing { growing as alias; }
}

class Stream
{
    public $context;
    private $isRead = false;

    public function stream_open($path, $mode, $options, &$opened)
    {
        grow();

        return true;
    }

    public function stream_read($bytes)
    {
        $code = $this->isRead ? '' : "<?php\nreturn \\App\\Stacks\\grow();\n";
        $this->isRead = true;

        return $code;
    }

    public function stream_eof()
    {
        return $this->isRead;
    }

    public function stream_stat()
    {
        return [];
    }

    public function stream_set_option($option, $first, $second)
    {
        return false;
    }

    public function stream_close()
    {
    }
}
