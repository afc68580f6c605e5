<?php

namespace App\Resources;

use App\Models\PolicyConfiguration;

class PolicyConfigurationResource extends Resource
{
    public static string $model = PolicyConfiguration::class;
}
