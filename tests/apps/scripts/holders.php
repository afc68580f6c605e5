<?php

// Makes holders of a known size in every way that PHP has, then waits, up to 60 s, until the file of the query's `file`
// exists (a path as PHP sees it); meanwhile a dump can be taken once it sleeps: after it made `file`.ready. Answers with the bytes
// that each holder took, by memory_get_usage(), which counts the slots of the allocator. Query:
//   numbers=N  an array of N integers besides
//   chain=N    a chain of N objects besides

namespace Holder;

class Company
{
    public $calls = [];
    protected ?Company $parent = null;
}

class Call
{
    private $attributes;

    public function __construct(array $attributes)
    {
        $this->attributes = $attributes;
    }
}

#[\AllowDynamicProperties]
class Registry
{
    public static $resolved = [];
    protected static $unused;
}

class Derived extends Registry
{
    public static $own;
}

class Lost
{
    public $self;
    public $text;
}

class Link
{
    public $next;
    public $number;
}

final class Facts
{
    public static $bytes = [];
}

/** Makes a value, and notes how many bytes it took. */
function made(string $path, callable $make)
{
    Facts::$bytes[$path] = 0;
    $before = memory_get_usage();
    $value = $make();
    Facts::$bytes[$path] = memory_get_usage() - $before;

    return $value;
}

function text(int $bytes): string
{
    return str_repeat('S', $bytes - 4) . mt_rand(1000, 9999);
}

function rows(int $count): array
{
    $rows = [];
    for ($i = 0; $i < $count; $i++) {
        $rows[] = ['id' => $i, 'name' => "row number $i of many", 'tags' => [$i, "tag $i"]];
    }

    return $rows;
}

function remember(): void
{
    static $cache = [];
    $cache = made('static $cache in Holder\remember()', fn () => rows(600));
}

function generator()
{
    $kept = made("\$GLOBALS['generator']{\$kept}", fn () => rows(700));
    yield count($kept);
}

final class Waiter
{
    private $mine;

    public function __construct()
    {
        $this->mine = made("\$GLOBALS['waiter']->mine", fn () => rows(800));
    }

    public function hold(string $file): void
    {
        $local = made('$local in Holder\Waiter->hold()', fn () => rows(900));
        $deadline = time() + 60;
        touch("$file.ready");
        while (!file_exists($file) && time() < $deadline) {
            usleep(20000);
        }
    }
}

/** What PHP 7.4 has no syntax for; it must be walked over. */
function modern(): array
{
    $made = [];
    if (PHP_VERSION_ID >= 80100) {
        eval('enum Suit: string { case Hearts = "h"; case Spades = "s"; const LIST = [self::Hearts, self::Spades]; }
            final class Once { public function __construct(public readonly array $rows) {} }');
        $made['enum'] = [\Suit::Hearts, \Suit::LIST];
        $made['readonly'] = new \Once(rows(3));
        $fiber = new \Fiber(function () {
            $kept = made("\$GLOBALS['fiber']{\$kept}", fn () => rows(1000));
            \Fiber::suspend(1);
        });
        $fiber->start();
        $GLOBALS['fiber'] = $fiber;
    }
    if (PHP_VERSION_ID >= 80000) {
        $map = new \WeakMap();
        $made['key'] = new \stdClass();
        $map[$made['key']] = made("\$GLOBALS['weak map']{0}", fn () => rows(1100));
        $GLOBALS['weak map'] = $map;
    }
    if (PHP_VERSION_ID >= 80400) {
        $class = new \ReflectionClass(Company::class);
        $made['ghost'] = $class->newLazyGhost(fn () => null);
        $made['proxy'] = $class->newLazyProxy(fn () => new Company());
        $made['initialized'] = $class->newLazyProxy(fn () => new Company());
        $made['initialized']->calls = rows(3);
    }

    return $made;
}

parse_str(PHP_SAPI === 'cli' ? $argv[1] : $_SERVER['QUERY_STRING'], $query);

$rows = made("\$GLOBALS['rows']", fn () => rows(5000));
Registry::$resolved[17] = (object) ['company' => new Company()];
Registry::$resolved[17]->company->calls[3] = new Call([
    'raw' => made("Holder\Registry::\$resolved[17]->company->calls[3]->attributes['raw']", fn () => text(300000)),
]);
Derived::$own = made('Holder\Derived::$own', fn () => rows(500));
remember();
define('HOLDER_TABLE', made('HOLDER_TABLE', fn () => rows(400)));
$waiter = new Waiter();
$closure = (function () {
    $bound = made("\$GLOBALS['closure']{\$bound}", fn () => rows(1200));

    return static fn () => $bound;
})();
$generator = generator();
$generator->current();
$wrapped = new \ArrayObject(['x' => made("\$GLOBALS['wrapped']['x']", fn () => rows(1300))]);
$fixed = new \SplFixedArray(100);
$fixed[7] = made("\$GLOBALS['fixed'][7]", fn () => rows(1400));
$storage = made("\$GLOBALS['storage']", function () {
    $storage = new \SplObjectStorage();
    for ($i = 0; $i < 500; $i++) {
        $storage[new Company()] = [$i, text(300)];
    }

    return $storage;
});
$queue = made("\$GLOBALS['queue']", function () {
    $queue = new \SplQueue();
    for ($i = 0; $i < 500; $i++) {
        $queue[] = text(400);
    }

    return $queue;
});
$heap = made("\$GLOBALS['heap']", function () {
    $heap = new \SplMinHeap();
    for ($i = 0; $i < 500; $i++) {
        $heap->insert([$i, text(600)]);
    }

    return $heap;
});
$registry = new Registry();
$registry->{'added é'} = made("\$GLOBALS['registry']->{'added é'}", fn () => rows(1500));
$referred = made("\$GLOBALS['referred']", fn () => rows(1600));
$reference = &$referred;
$references = [&$referred, &$reference];
$cycle = new Company();
$cycle->calls = ['self' => $cycle, 'again' => [&$cycle], 'text' => made("\$GLOBALS['cycle']->calls['text']", fn () => text(250000))];
$weak = \WeakReference::create($cycle);
$key = str_repeat('a long key ', 10) . "\x1b";
$keyed = [$key => made("\$GLOBALS['keyed']['a long key a long key a long key a long key a long key a long ke…']", fn () => text(260000))];
$modern = modern();
$errors = [new \RuntimeException('with a trace'), fopen('php://memory', 'r'), new \DateTime('2026-01-01'), new \ReflectionClass(Company::class)];
if (isset($query['numbers'])) {
    $numbers = made("\$GLOBALS['numbers']", fn () => range(1, (int) $query['numbers']));
}
if (isset($query['chain'])) {
    $chain = made("\$GLOBALS['chain']", function () use ($query) {
        $chain = null;
        for ($i = (int) $query['chain']; $i > 0; $i--) {
            $link = new Link();
            $link->next = $chain;
            $link->number = $i;
            $chain = $link;
        }

        return $chain;
    });
    // The table of all objects grew too, which is not the chain's; a link takes a slot of 80 bytes.
    Facts::$bytes["\$GLOBALS['chain']"] = 80 * (int) $query['chain'];
}
$lost = new Lost();
$lost->self = $lost;
$number = spl_object_id($lost);
$lost->text = made("object #$number of Holder\Lost->text (not reached from any root)", fn () => text(270000));
unset($lost);

$waiter->hold($query['file']);

echo json_encode(['bytes' => Facts::$bytes]);

// A chain is freed link by link, each in the one before.
while (isset($chain)) {
    $chain = $chain->next;
}
