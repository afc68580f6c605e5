<?php

namespace App\Resources;

use App\Models\Staff;

class StaffResource extends Resource
{
    public static string $model = Staff::class;
}
