<?php

// Profiles every request with Excimer at 100 Hz, as it is used in production, and throws the result away.
$excimer = new ExcimerProfiler();
$excimer->setEventType(EXCIMER_REAL);
$excimer->setPeriod(0.01);
$excimer->start();
register_shutdown_function(static function () use ($excimer): void {
    $excimer->stop();
    strlen($excimer->getLog()->formatCollapsed());
});
