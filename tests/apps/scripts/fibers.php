<?php

// A fiber is suspended inside a database call, another call is made meanwhile, and the first one is finished: calls do
// not return in the reverse order of their beginnings. Answers with the results of both.

$inner = new PDO('sqlite::memory:');
$outer = new PDO('sqlite::memory:');
$outer->setAttribute(PDO::ATTR_ERRMODE, PDO::ERRMODE_EXCEPTION);
$outer->exec('create table t (a integer)');
$outer->exec('insert into t values (1), (2), (3)');

$fiber = new Fiber(function () use ($outer): array {
    $statement = $outer->query('select a from t');

    return $statement->fetchAll(PDO::FETCH_FUNC, fn (int $a): int => Fiber::suspend($a));
});

$seen = [$fiber->start()];
for ($i = 0; $i < 3; $i++) {
    $statement = $inner->query('select 40 + '.$i);
    $statement->fetchAll();
    $next = $fiber->resume($i * 10);
    if ($next !== null) {
        $seen[] = $next;
    }
}

echo json_encode(['seen' => $seen, 'returned' => $fiber->getReturn()]);
