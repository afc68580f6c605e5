<?php

namespace App\Stacks;

final class Held
{
    /** @var string[] What was taken, until the request ends. */
    public static $blocks = [];
}

/** Takes a huge block, the larger the later in the request, and writes down the stack that took it. */
function grow(): string
{
    $bytes = 5242880 + 65536 * \count(Held::$blocks);
    $line = __LINE__; $stack = \debug_backtrace(\DEBUG_BACKTRACE_IGNORE_ARGS, 200); Held::$blocks[] = \str_repeat('x', $bytes);

    $answer = ['bytes' => $bytes, 'file' => __FILE__, 'line' => $line, 'stack' => $stack];
    \file_put_contents($_GET['file'], \json_encode($answer) . "\n", \FILE_APPEND);

    return 'grown';
}
