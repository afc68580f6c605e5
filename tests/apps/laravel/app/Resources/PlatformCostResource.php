<?php

namespace App\Resources;

use App\Models\PlatformCost;

class PlatformCostResource extends Resource
{
    public static string $model = PlatformCost::class;
}
