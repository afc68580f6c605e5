<?php

namespace App\Resources;

use App\Models\Branch;

class BranchResource extends Resource
{
    public static string $model = Branch::class;
}
