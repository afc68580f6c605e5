<?php

// Several readers of one configuration: it is there once, and belongs to who loaded it.
function load_config(): string
{
    return str_repeat('c', 6 << 20);
}

function read_config(string $config): string
{
    return $config;
}

function render_page(): string
{
    return str_repeat('p', 2 << 20);
}

$config = load_config();
$readers = [];
for ($i = 0; $i < 100; $i++) {
    $readers[] = read_config($config);
}
$page = render_page();
