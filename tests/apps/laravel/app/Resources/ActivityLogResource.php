<?php

namespace App\Resources;

use App\Models\ActivityLog;

class ActivityLogResource extends Resource
{
    public static string $model = ActivityLog::class;
}
