<?php

namespace App\Resources;

use App\Models\NotificationTemplate;

class NotificationTemplateResource extends Resource
{
    public static string $model = NotificationTemplate::class;
}
