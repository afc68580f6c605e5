<?php

// Keeps page runs of 4 to 64 KiB, `mib` MiB of them, and answers that number.
$kept = [];
for ($bytes = 0, $i = 0; $bytes < $_GET['mib'] << 20; $i++) {
    $length = 4000 + $i % 16 * 4096;
    $kept[] = str_repeat('x', $length);
    $bytes += $length;
}
echo $_GET['mib'];
