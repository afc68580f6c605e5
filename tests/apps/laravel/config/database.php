<?php

return [
    'default' => 'sqlite',
    'connections' => [
        'sqlite' => ['driver' => 'sqlite', 'database' => database_path('gateway.sqlite'), 'prefix' => ''],
    ],
];
