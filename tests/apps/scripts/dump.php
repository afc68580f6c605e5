<?php

// Waits, up to 60 s, until the file of the query's `file` exists (a path as PHP sees it); meanwhile a dump of the worker
// can be taken once it sleeps: after it made `file`.ready. Then answers with what PHP itself says of what a dump holds: its memory, its objects, its session, its
// stack. On the command line the file is the first argument. Query:
//   unknown=1  the session also has what serializes itself
//   objects=N  N more objects of class Filler
//   depth=N    waits in a recursion N deep
//   seed=N     the session is one drawn at random instead
// Every value that no dump may hold begins with "S3CRET".

class Base
{
    public $open = 1.5;
    protected $guarded = 'S3CRET property';
    private $own = [1, 2, 3];
}

class Item extends Base
{
    private $own = ['x' => 1];
    public ?self $next;
    public $self;
}

class Three
{
    public $a = 1;
    public $b = 2;
    public $c = 3;
}

#[AllowDynamicProperties]
final class Filler
{
}

final class Sleeper
{
    public $a = 'S3CRET asleep';
    public $b = 2;

    public function __sleep()
    {
        return ['b'];
    }
}

final class Waiter
{
    public $file;
    public $stack = [];
    public $memory = [];
    public $isUnchanged = false;

    public static function start(string $file): self
    {
        $waiter = new self();
        $waiter->file = $file;
        array_map(function () use ($waiter) {
            $waiter->hold('S3CRET argument');
        }, ['S3CRET element']);

        return $waiter;
    }

    public function hold(string $argument): void
    {
        $local = "S3CRET local of $argument";
        $this->stack = array_map(fn ($frame) => [
            'file' => basename($frame['file'] ?? 'unknown'),
            'line' => $frame['line'] ?? 0,
            'function' => ($frame['class'] ?? '') . ($frame['type'] ?? '') . $frame['function'],
        ], debug_backtrace(DEBUG_BACKTRACE_IGNORE_ARGS, 40));
        $deadline = time() + 60;
        touch("$this->file.ready");
        // The first look keeps the name in PHP's stat cache.
        file_exists($this->file);
        $usage = memory_get_usage();
        $realUsage = memory_get_usage(true);
        $peak = memory_get_peak_usage();
        $realPeak = memory_get_peak_usage(true);
        while (!file_exists($this->file) && time() < $deadline) {
            // So long that the JIT does not find the loop hot, and takes no memory to compile it.
            usleep(20000);
        }
        $this->isUnchanged = memory_get_usage() === $usage && memory_get_peak_usage() === $peak;
        $this->memory = [
            'size' => $usage,
            'real_size' => $realUsage,
            'peak' => $peak,
            'real_peak' => $realPeak,
        ];
    }
}

function dive(int $depth, string $file): Waiter
{
    return $depth > 0 ? dive($depth - 1, $file) : Waiter::start($file);
}

function session(bool $isUnknown): array
{
    $shared = new Item();
    $shared->self = $shared;
    $dynamic = new Filler();
    $dynamic->{'added é'} = 'S3CRET added';
    $unset = new Three();
    unset($unset->b);
    $listed = new Three();
    // From here on it has a table of its properties.
    foreach ($listed as $name => $value) {
        $listed->$name = $value + 1;
    }
    $copied = ['S3CRET copied', 1.25, [$shared]];
    $list = [1, 2, ['S3CRET listed' => true]];
    $lonely = 'S3CRET lonely';
    $session = [
        'text' => 'S3CRET naïve ☃ 𝄞',
        'empty' => ['', [], null, new stdClass()],
        'floats' => [0.1, -0.0, 1e100, 1.5, 1e-7, 123456789.12345678, NAN, INF, -INF, 1e15, 1e17, 1e5, 0.1 + 0.2, 1 / 3],
        'ints' => [0, -1, 9, 10, PHP_INT_MAX, PHP_INT_MIN],
        'bools' => [true, false, null],
        'nested' => ['a' => ['b' => ['c' => range(1, 500)]], 7 => 'seven', -3 => 'minus', 'é' => [[[]]]],
        'objects' => [$shared, $shared, new Item(), $unset, $listed, $dynamic, (object) ['a' => 1, '5' => 2]],
        'shared' => $shared,
        12 => 'a number for a key',
        'copies' => [$copied, $copied, $copied],
        'resource' => fopen('php://memory', 'r'),
        'large' => str_repeat('S3CRET large', 5000),
    ];
    $session['list'] = &$list;
    $session['list again'] = &$list;
    $session['object by reference'] = &$shared;
    $session['object by reference again'] = &$shared;
    $session['lonely'] = &$lonely;
    $session['holes'] = range(0, 20);
    unset($session['holes'][3], $session['holes'][7]);
    if (PHP_VERSION_ID >= 80100) {
        eval('enum Suit: string { case Hearts = "S3CRET hearts"; case Spades = "s"; }');
        $session['enum'] = [constant('Suit::Hearts'), constant('Suit::Hearts'), constant('Suit::Spades')];
    }
    if ($isUnknown) {
        $session['sleeper'] = [new Sleeper()];
        $session['internal'] = new ArrayObject(['S3CRET inside']);
    }

    return $session;
}

/** Anything that a session can hold; `pool` is what values share, by copy and by reference. */
function random(int $depth, array &$pool)
{
    switch (mt_rand(0, $depth > 0 ? 12 : 6)) {
        case 0:
            return null;
        case 1:
            return mt_rand(0, 1) === 1;
        case 2:
            return (mt_rand() - mt_rand()) * mt_rand(0, 1000);
        case 3:
            return mt_rand() / mt_rand(1, 1000) * 10 ** mt_rand(-30, 30);
        case 4:
            return str_repeat('é', mt_rand(0, 120));
        case 5:
            return $pool[mt_rand(0, 9)];
        case 6:
            return new Three();
        case 7:
            $object = new Item();
            $object->self = random($depth - 1, $pool);
            if (mt_rand(0, 1) === 1) {
                $object->open = &$pool[mt_rand(0, 9)];
            }

            return $object;
        case 8:
            $object = new Filler();
            $object->{'k' . mt_rand(0, 99)} = random($depth - 1, $pool);

            return $object;
        default:
            $array = [];
            for ($i = mt_rand(0, 6); $i > 0; $i--) {
                $key = mt_rand(0, 1) === 1 ? mt_rand(-5, 20) : "k$i";
                if (mt_rand(0, 4) === 0) {
                    $array[$key] = &$pool[mt_rand(0, 9)];
                } else {
                    $array[$key] = random($depth - 1, $pool);
                }
            }

            return $array;
    }
}

function randomSession(int $seed): array
{
    mt_srand($seed);
    $pool = array_fill(0, 10, null);
    foreach (array_keys($pool) as $index) {
        $pool[$index] = random(3, $pool);
    }
    $session = [];
    for ($i = 0; $i < 30; $i++) {
        $session["key $i"] = random(5, $pool);
        if ($i % 7 === 0) {
            $session["reference $i"] = &$pool[$i % 10];
        }
    }

    return $session;
}

parse_str(PHP_SAPI === 'cli' ? $argv[1] : $_SERVER['QUERY_STRING'], $query);
session_save_path(dirname($query['file']));
session_start(['use_cookies' => '0', 'use_only_cookies' => '0', 'cache_limiter' => '']);
$_SESSION = isset($query['seed']) ? randomSession((int) $query['seed']) : session(isset($query['unknown']));
$sizes = [];
foreach ($_SESSION as $key => $value) {
    $sizes[] = [$key, strlen(serialize($value))];
}
unset($value);
$total = strlen(serialize($_SESSION));
$items = [];
for ($i = 0; $i < 121; $i++) {
    $items[] = new Item();
}
$threes = array_map(fn ($i) => new Three(), range(1, 33));
unset($threes[5], $threes[6]);
$closures = [fn () => 1, fn () => 2, fn () => 3];
$fillers = [];
for ($i = 0, $count = (int) ($query['objects'] ?? 0); $i < $count; $i++) {
    $fillers[] = new Filler();
}
$anonymous = new class {
    public $value = 'S3CRET anonymous';
};
$waiter = dive((int) ($query['depth'] ?? 0), $query['file']);

echo json_encode([
    'memory' => $waiter->memory,
    'unchanged' => $waiter->isUnchanged,
    'stack' => $waiter->stack,
    'session' => ['bytes' => $total, 'sizes' => $sizes],
    // Those of the session: the shared one and another; the unset one and the listed one; the dynamic one.
    'objects' => ['Item' => 121 + 2, 'Three' => 31 + 2, 'Filler' => $count + 1, 'stdClass' => 2, 'Waiter' => 1],
    'classes' => [
        count(get_declared_classes()),
        count(get_declared_interfaces()),
        count(get_declared_traits()),
    ],
    'included_files' => count(get_included_files()),
    'included_bytes' => array_sum(array_map('filesize', get_included_files())),
    'php' => PHP_VERSION,
]);
