<?php

namespace App\Resources;

use App\Models\Call;

class CallResource extends Resource
{
    public static string $model = Call::class;
}
