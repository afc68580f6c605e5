<?php

// Makes `rows` objects and keeps them, says so by making the file `file`.ready, and waits, up to 60 s, until `file` exists
// (a path as PHP sees it). On the command line these are the arguments, else the query.

final class Row
{
    public $name = '';
    public $next;
}

final class Report
{
    public static $rows = [];

    public static function make(int $count): void
    {
        for ($i = 0; $i < $count; $i++) {
            $row = new Row();
            $row->name = str_repeat('x', 100 + $i % 2);
            self::$rows[] = $row;
        }
    }
}

if (PHP_SAPI === 'cli') {
    parse_str(implode('&', array_slice($argv, 1)), $_GET);
}
Report::make((int) $_GET['rows']);
touch($_GET['file'].'.ready');
$deadline = time() + 60;
while (! file_exists($_GET['file']) && time() < $deadline) {
    usleep(1000);
    clearstatcache();
}
