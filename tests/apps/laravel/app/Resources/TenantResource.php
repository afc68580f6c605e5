<?php

namespace App\Resources;

use App\Models\Tenant;

class TenantResource extends Resource
{
    public static string $model = Tenant::class;
}
