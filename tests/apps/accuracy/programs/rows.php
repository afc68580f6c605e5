<?php

// A result with a wide column, and a list of its keys: few values hold nearly all.
function fetch_row(int $id, int $length): array
{
    return ['id' => $id, 'body' => str_repeat('b', $length)];
}

function fetch_all(int $count): array
{
    $rows = [];
    for ($id = 0; $id < $count; $id++) {
        $rows[] = fetch_row($id, 60000);
    }

    return $rows;
}

function keys_of(array $rows): array
{
    $keys = [];
    foreach ($rows as $row) {
        $keys[] = $row['id'];
    }

    return $keys;
}

$rows = fetch_all(200);
$keys = keys_of($rows);
