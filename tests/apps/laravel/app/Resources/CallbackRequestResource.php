<?php

namespace App\Resources;

use App\Models\CallbackRequest;

class CallbackRequestResource extends Resource
{
    public static string $model = CallbackRequest::class;
}
