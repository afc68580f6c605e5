<?php

namespace App\Resources;

use App\Models\NotificationQueue;

class NotificationQueueResource extends Resource
{
    public static string $model = NotificationQueue::class;
}
