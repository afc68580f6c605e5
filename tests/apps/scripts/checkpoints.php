<?php

// Answers with what PHP says of its own memory at the moments at which memprof looks: as the script starts, right before
// the headers are sent, as the script ends, and in a shutdown function, to show that nothing changed after the script's end.

function figures(): array
{
    return ['current' => memory_get_usage(true), 'peak' => memory_get_peak_usage(true)];
}

register_shutdown_function(function () {
    echo ',"shutdown":', json_encode(figures()), '}';
});
$start = figures();
$block = str_repeat('x', 5 * 1048576 + 1234);
$strings = [];
for ($i = 0; $i < 40; $i++) {
    $strings[] = str_repeat('y', 300000 + $i);
}
$ready = figures();
echo ' ';
flush();

unset($block);
array_splice($strings, 20);
gc_mem_caches();
// A higher peak that does not last, and less at the end than when the headers were sent.
$peak = str_repeat('z', 11 * 1048576);
unset($peak);
$end = figures();
echo '{"start":', json_encode($start), ',"ready":', json_encode($ready), ',"end":', json_encode($end);
