<?php

namespace App\Resources;

use App\Models\Service;

class ServiceResource extends Resource
{
    public static string $model = Service::class;
}
