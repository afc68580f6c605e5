<?php

// Runs into memory_limit, or near it, in a way that a test knows. Query:
//   case=slow      keeps small arrays until the limit
//   case=jump      asks for twice the limit at once, from a heap that is nearly empty
//   case=again     as slow, and again in a shutdown function, as frameworks do
//   case=recursion Turn->one -> a closure -> Turn->two -> Turn->one ... until the limit
//   case=objects   keeps objects until the limit
//   case=near      holds `share` percent of the limit, and waits, up to 60 s, until the file `file` exists (a path as
//                  PHP sees it); it says that it does by the file `file`.ready

final class Kept
{
    public static array $kept = [];

    public ?Kept $next = null;
}

final class Turn
{
    public function one(int $level): int
    {
        $again = fn (int $level): int => $this->two($level);

        return $again($level + 1) + 1;
    }

    private function two(int $level): int
    {
        return $this->one($level) + 1;
    }
}

function fill(): void
{
    for ($i = 0; ; $i++) {
        Kept::$kept[] = [$i, $i + 1];
    }
}

function fill_with_objects(): void
{
    for (;;) {
        Kept::$kept[] = new Kept();
    }
}

function jump(int $bytes): string
{
    return str_repeat('x', $bytes);
}

function near(int $bytes, string $file): void
{
    while (memory_get_usage(true) < $bytes) {
        Kept::$kept[] = str_repeat('x', 200_000);
    }
    touch("$file.ready");
    $deadline = time() + 60;
    while (!file_exists($file) && time() < $deadline) {
        usleep(1000);
        clearstatcache();
    }
}

$limit = ((int) ini_get('memory_limit')) << 20;
switch ($_GET['case']) {
    case 'again':
        register_shutdown_function('fill');
        // no break
    case 'slow':
        fill();
    case 'jump':
        jump(2 * $limit);
    case 'recursion':
        (new Turn())->one(0);
    case 'objects':
        fill_with_objects();
    case 'near':
        near(intdiv($limit, 100) * (int) $_GET['share'], $_GET['file']);
        echo json_encode(['real' => memory_get_usage(true), 'kept' => count(Kept::$kept)]);
}
