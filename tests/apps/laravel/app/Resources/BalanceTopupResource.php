<?php

namespace App\Resources;

use App\Models\BalanceTopup;

class BalanceTopupResource extends Resource
{
    public static string $model = BalanceTopup::class;
}
