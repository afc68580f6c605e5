<?php

namespace App\Resources;

use App\Models\WebhookEvent;

class WebhookEventResource extends Resource
{
    public static string $model = WebhookEvent::class;
}
