<?php

namespace App\Resources;

use App\Models\CustomerNote;

class CustomerNoteResource extends Resource
{
    public static string $model = CustomerNote::class;
}
