<?php

namespace App\Resources;

use App\Models\Integration;

class IntegrationResource extends Resource
{
    public static string $model = Integration::class;
}
