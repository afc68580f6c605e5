<?php

// Answers which worker serves it, and its peak. Query: ms=N works for so long; mb=N holds so much meanwhile.
$block = str_repeat('x', 1048576 * (int) ($_GET['mb'] ?? 0));
usleep(1000 * (int) ($_GET['ms'] ?? 0));
echo json_encode(['pid' => getmypid(), 'peak' => memory_get_peak_usage(true)]);
