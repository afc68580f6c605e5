<?php

// Serves a page of which every statement calls a tick function: at some statements, drawn at random, that takes a block and
// writes what debug_backtrace() says. Query: seed; share=N takes one in N; file names where it writes.
set_include_path(dirname(__DIR__, 2).'/library');

function at_random_statement(int $share, string $file): void
{
    static $random = null;
    // A generator of its own: the page's random numbers stay what they are.
    $random = (($random ?? (int) $_GET['seed']) * 1103515245 + 12345) & 0x7FFFFFFF;
    if (intdiv($random, 65536) % $share !== 0) {
        return;
    }
    $line = __LINE__ + 1;
    $block = str_repeat('x', 3 << 20);
    unset($block);
    $answer = [
        'bytes' => 3 << 20,
        'file' => __FILE__,
        'line' => $line,
        'stack' => debug_backtrace(DEBUG_BACKTRACE_IGNORE_ARGS),
    ];
    file_put_contents($file, json_encode($answer, JSON_PARTIAL_OUTPUT_ON_ERROR)."\n", FILE_APPEND);
}

register_tick_function('at_random_statement', (int) $_GET['share'], $_GET['file']);
require __DIR__.'/index.php';
