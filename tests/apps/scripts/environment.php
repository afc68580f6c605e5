<?php

// Answers which PHP runs, and how it is set up.
$opcache = function_exists('opcache_get_status') ? opcache_get_status(false) : false;

echo json_encode([
    'version' => PHP_VERSION,
    'opcache' => $opcache['opcache_enabled'] ?? false,
    'jit' => $opcache['jit']['on'] ?? false,
    'memory_limit' => ini_get('memory_limit'),
]);
