<?php

namespace App\Resources;

use App\Models\EventType;

class EventTypeResource extends Resource
{
    public static string $model = EventType::class;
}
