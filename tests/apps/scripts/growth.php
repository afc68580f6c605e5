<?php

// Takes, keeps, resizes and gives back memory in the way that `case` names, and sends the headers at its peak, with what it
// holds still held. The answer is the bytes of page runs that the case's strings must take, where it knows them.

const PAGE = 4096;
const KIB = 1024;
const MIB = 1048576;

/** Bytes of the page run that a string of this length takes, from 3 KB to 2 MB; a string has 24 bytes before it and a zero behind. */
function run_bytes(int $length): int
{
    return intdiv($length + 25 + PAGE - 1, PAGE) * PAGE;
}

/** A string of its own: str_repeat is not evaluated while compiling where its count is not constant. */
function filled(int $length): string
{
    return str_repeat('x', $length);
}

/** Keeps 10 MB of strings of 4 KB to 1 MB. */
function keep(int &$expected): array
{
    $kept = [];
    for ($length = 4 * KIB, $total = 0; $total < 10 * MIB; $length = $length * 2 > MIB ? 4 * KIB : $length * 2) {
        $kept[] = str_repeat('k', $length);
        $total += $length;
        $expected += run_bytes($length);
    }

    return $kept;
}

/** Takes twice as much as it keeps. */
function drop(): array
{
    $kept = [];
    for ($i = 0; $i < 400; $i++) {
        $dropped = filled(20000 + $i);
        $kept[] = filled(10000 + $i);
        $dropped = null;
    }

    return $kept;
}

/** Appends to strings with nothing in their way: one ends as a page run, the other as a huge block. */
function append(): array
{
    $piece = filled(1000);
    $texts = [];
    foreach ([1000, 5000] as $pieces) {
        $text = '';
        for ($i = 0; $i < $pieces; $i++) {
            $text .= $piece;
        }
        $texts[] = $text;
    }

    return $texts;
}

/** Appends to strings in turn, so that they are in each other's way and have to move. */
function interleave(): array
{
    $texts = ['', '', ''];
    for ($i = 0; $i < 300; $i++) {
        foreach ($texts as $at => $_) {
            $texts[$at] .= filled(2000);
        }
    }

    return $texts;
}

/** An array whose table doubles again and again. */
function grow(): array
{
    $table = [];
    for ($i = 0; $i < 300000; $i++) {
        $table[] = $i;
    }

    return $table;
}

/** Page runs and huge blocks that shrink where they are: a string's buffer is cut to what was read. */
function shrink(): array
{
    $kept = [];
    foreach ([100 * KIB, 800 * KIB, 3 * MIB, 9 * MIB] as $length) {
        $file = fopen('php://memory', 'w+');
        fwrite($file, filled(intdiv($length, 3)));
        rewind($file);
        $kept[] = fread($file, $length);
        fclose($file);
    }

    return $kept;
}

/** Huge blocks, some of them given back. */
function huge(): array
{
    $kept = [];
    for ($i = 1; $i <= 6; $i++) {
        $kept[] = filled($i * MIB + 2 * MIB);
        $dropped = filled(4 * MIB);
        unset($dropped);
    }
    unset($kept[0], $kept[3]);

    return $kept;
}

/** Many small objects. */
function objects(): array
{
    $kept = [];
    for ($i = 0; $i < 60000; $i++) {
        $object = new stdClass();
        $object->number = $i;
        $kept[] = $object;
    }

    return $kept;
}

/** Small objects that are freed again; collecting the heap gives their pages back. */
function collect(): array
{
    $kept = objects();
    foreach ($kept as $at => $_) {
        if ($at % 1000 !== 0) {
            $kept[$at] = null;
        }
    }
    gc_mem_caches();
    $kept[] = keep_after_collection();

    return $kept;
}

/** More than what was collected, so that the peak lies behind the collection. */
function keep_after_collection(): array
{
    return array_map('filled', array_fill(0, 150, 100000));
}

/** Generators, closures, exceptions: blocks of the engine's own. */
function mixed(): array
{
    $generate = function (int $count) {
        for ($i = 0; $i < $count; $i++) {
            yield $i => filled(5000);
        }
    };
    $kept = iterator_to_array($generate(200));
    for ($i = 0; $i < 100; $i++) {
        try {
            throw new RuntimeException(filled(4000));
        } catch (RuntimeException $exception) {
            $kept[] = $exception;
        }
    }
    $kept[] = serialize($kept[5]).json_encode(array_fill(0, 20000, 'y'));
    $kept[] = explode(',', str_repeat('abc,', 50000));

    return $kept;
}

/** A stack so deep that the virtual machine's own stack takes further pages. */
function deepen(int $depth): array
{
    return $depth === 0 ? [filled(300000)] : [deepen($depth - 1)];
}

/**
 * Holds so much more that the heap has its peak now. (memory_get_peak_usage() leaves out that a block is there twice while it
 * moves, and no block is larger than all together.)
 */
function rise_above_peak(): array
{
    $count = intdiv(2 * memory_get_peak_usage() - memory_get_usage() + 2 * MIB, 100000);
    $lengths = array_fill(0, $count, 100000);

    return [$lengths, array_map('filled', $lengths)];
}

$cases = [
    'keep' => function () use (&$expected) {
        return keep($expected);
    },
    'drop' => 'drop',
    'append' => 'append',
    'interleave' => 'interleave',
    'grow' => 'grow',
    'shrink' => 'shrink',
    'huge' => 'huge',
    'objects' => 'objects',
    'collect' => 'collect',
    'mixed' => 'mixed',
    'deepen' => function () {
        return deepen(8000);
    },
];
$expected = 0;
$kept = $cases[$_GET['case']]();
$more = rise_above_peak();
echo ' ';
flush();

unset($kept, $more);
gc_mem_caches();
echo json_encode(['case' => $_GET['case'], 'expected' => $expected]);
