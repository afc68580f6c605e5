<?php

namespace App\Resources;

use App\Models\WorkingHour;

class WorkingHourResource extends Resource
{
    public static string $model = WorkingHour::class;
}
