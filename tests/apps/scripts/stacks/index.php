<?php

// Runs one case: a way of calling functions, at the end of which memory is taken. Query:
//   case=C    the function of cases*.php that runs; without it the names of all of them are the answer
//   file=F    where the cases' stacks are written, one JSON object a line (a path as PHP sees it)
//   name=N    a case's own parameter
//   until=F   goes on, up to 60 s, until the file F exists: another request has answered, in another worker

namespace App\Stacks;

require __DIR__ . '/grow.php';
require __DIR__ . '/classes.php';
require __DIR__ . '/cases.php';
if (\PHP_VERSION_ID >= 80100) {
    require __DIR__ . '/cases81.php';
}
if (\PHP_VERSION_ID >= 80400) {
    require __DIR__ . '/cases84.php';
}

if (isset($_GET['case'])) {
    $case = 'App\\Stacks\\Cases\\' . $_GET['case'];
    $case();
    $deadline = \time() + 60;
    while (isset($_GET['until']) && !\file_exists($_GET['until']) && \time() < $deadline) {
        \usleep(1000);
    }
    echo 'done';
} else {
    $cases = \preg_grep('/^app\\\\stacks\\\\cases\\\\/', \get_defined_functions()['user']);
    $jit = \function_exists('opcache_get_status') ? \opcache_get_status(false)['jit'] ?? null : null;
    echo \json_encode([
        'cases' => \array_values(\preg_replace('/.*\\\\/', '', $cases)),
        'compiled_bytes' => $jit ? $jit['buffer_size'] - $jit['buffer_free'] : 0,
    ]);
}
