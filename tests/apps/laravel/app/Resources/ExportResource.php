<?php

namespace App\Resources;

use App\Models\Export;

class ExportResource extends Resource
{
    public static string $model = Export::class;
}
