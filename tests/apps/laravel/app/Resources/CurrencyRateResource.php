<?php

namespace App\Resources;

use App\Models\CurrencyRate;

class CurrencyRateResource extends Resource
{
    public static string $model = CurrencyRate::class;
}
