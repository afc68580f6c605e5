<?php

namespace App\Resources;

use App\Models\PhoneNumber;

class PhoneNumberResource extends Resource
{
    public static string $model = PhoneNumber::class;
}
