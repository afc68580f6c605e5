<?php

namespace App\Resources;

use App\Models\PricingPlan;

class PricingPlanResource extends Resource
{
    public static string $model = PricingPlan::class;
}
